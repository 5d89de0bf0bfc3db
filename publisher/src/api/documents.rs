//! The envelopes that the views travel in. Each says its schema version first.

use serde::{Deserialize, Serialize};

use super::ApiError;
use super::types::{Added, DropView, PublicationView, SessionsFound, StatusView, WhoisView};
use crate::config::Config;
use crate::model::Ban;

/// The version of every document here and in [`types`](super::types).
pub const SCHEMA: u32 = 1;

/// The field `"schema"`: writes [`SCHEMA`], reads nothing else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Schema;

impl From<Schema> for u32 {
    fn from(_: Schema) -> Self {
        SCHEMA
    }
}

impl TryFrom<u32> for Schema {
    type Error = String;

    fn try_from(schema: u32) -> Result<Self, String> {
        if schema == SCHEMA {
            Ok(Self)
        } else {
            Err(format!("schema {schema}, this program knows {SCHEMA}"))
        }
    }
}

/// One view with its schema: a line of `-o ndjson`, and the answers that aren't lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document<T> {
    /// The version.
    pub schema: Schema,
    /// What it is about.
    #[serde(flatten)]
    pub content: T,
}

impl<T> Document<T> {
    /// `content` in its envelope.
    pub const fn new(content: T) -> Self {
        Self { schema: Schema, content }
    }
}

macro_rules! list_document {
    ($(#[$doc:meta])* $name:ident { $field:ident: $view:ty }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name {
            /// The version.
            pub schema: Schema,
            /// The list.
            pub $field: Vec<$view>,
        }

        impl $name {
            /// The list in its envelope.
            pub const fn new($field: Vec<$view>) -> Self {
                Self { schema: Schema, $field }
            }
        }
    };
}

list_document! {
    /// `{"schema":1,"publications":[…]}`
    Publications { publications: PublicationView }
}
list_document! {
    /// `{"schema":1,"clients":[…]}`
    Clients { clients: WhoisView }
}
list_document! {
    /// `{"schema":1,"drops":[…]}`
    Drops { drops: DropView }
}

list_document! {
    /// `{"schema":1,"bans":[…]}`
    Bans { bans: Ban }
}

/// `{"schema":1,"publication":{…},"already":false,"warnings":[…]}`
pub type AddedDocument = Document<Added>;
/// `{"schema":1,"sessions":[…],"left_out":0}`
pub type Sessions = Document<SessionsFound>;
/// `{"schema":1,"version":"0.1.0",…}`
pub type StatusDocument = Document<StatusView>;

/// `{"schema":1,"config":{…}}`: the keys of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigDocument {
    /// The version.
    pub schema: Schema,
    /// The configuration.
    pub config: Config,
}

/// `{"schema":1,"error":{"code":"conflict","message":"…","hint":"…"}}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDocument {
    /// The version.
    pub schema: Schema,
    /// What went wrong.
    pub error: ApiError,
}

/// `{"schema":1}`: it is done, and there is nothing more to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The version.
    pub schema: Schema,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_schema_is_refused_by_name() {
        assert_eq!(serde_json::to_string(&Done::default()).unwrap(), r#"{"schema":1}"#);
        let error = serde_json::from_str::<Drops>(r#"{"schema":2,"drops":[]}"#).unwrap_err();
        assert!(error.to_string().contains("schema 2, this program knows 1"), "{error}");
    }
}
