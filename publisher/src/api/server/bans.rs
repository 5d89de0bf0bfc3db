//! `/v1/bans`

use axum::extract::connect_info::ConnectInfo;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};

use super::{Answer, Failure, Peer, Shared};
use crate::api::documents::{Bans, Document};
use crate::api::query::BanQuery;
use crate::api::{BanRequest, Control};

pub(super) async fn add<C: Control>(
    State(Shared { control, changes, .. }): State<Shared<C>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Result<Json<BanRequest>, JsonRejection>,
) -> Result<Response, Failure> {
    let Json(request) = request?;
    let what = format!("deny {request}");
    let done = changes.run(peer, what, async move { control.ban(request).await }).await?;
    let status = if done.again { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(Document::new(done))).into_response())
}

pub(super) async fn remove<C: Control>(
    State(Shared { control, changes, .. }): State<Shared<C>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    query: Result<Query<BanQuery>, QueryRejection>,
) -> Answer<Bans> {
    let who = query?.0.who;
    let what = format!("deny rm {who}");
    let gone = changes.run(peer, what, async move { control.unban(who).await }).await?;
    Ok(Json(Bans::new(gone)))
}

pub(super) async fn list<C: Control>(
    State(Shared { control, .. }): State<Shared<C>>,
) -> Answer<Bans> {
    Ok(Json(Bans::new(control.bans().await?)))
}
