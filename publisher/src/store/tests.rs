//! What a state directory survives.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;
use crate::model::{PublicationSpec, SourceMode};

fn spec(published: &str, target: &str) -> PublicationSpec {
    PublicationSpec::new(published.parse().unwrap(), target.parse().unwrap(), SourceMode::Auto)
        .unwrap()
}

/// Publications 1 and 3; 2 was removed.
fn sample() -> State {
    let mut state = State::default();
    state.add(spec("8080", "172.17.0.2:80")).unwrap();
    state.add(spec("53/udp", "172.17.0.3:53")).unwrap();
    state.add(spec("[fe80::1%eth0]:9000-9010", "172.17.0.2:90-100")).unwrap();
    assert_eq!(state.next_generation(3), Some(2));
    assert_eq!(state.remove(2).unwrap().id, 2);
    state
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

/// The one file in `dir` that was set aside.
fn aside(dir: &Path) -> String {
    let mut kept = names(dir).into_iter().filter(|name| name.contains(".corrupt-"));
    let name = kept.next().expect("nothing was set aside");
    assert_eq!(kept.next(), None);
    name
}

#[test]
fn a_new_directory_is_private_and_empty() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a/b");
    let opened = Store::open(&dir).unwrap();
    assert_eq!(opened.state, State::default());
    assert_eq!(opened.damage, Vec::<String>::new());
    assert_eq!(names(&dir), ["lock", "secret.key"]);
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&dir.join("secret.key")), 0o600);
}

#[test]
fn what_is_saved_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, secret, .. } = Store::open(dir.path()).unwrap();
    let state = sample();
    store.save(&state).unwrap();
    drop(store);
    let again = Store::open(dir.path()).unwrap();
    assert_eq!(again.state, state);
    assert_eq!(again.secret, secret);
    assert_eq!(again.damage, Vec::<String>::new());
    assert_eq!(names(dir.path()), ["lock", "publications.json", "secret.key"]);
}

#[test]
fn ids_are_never_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, mut state, .. } = Store::open(dir.path()).unwrap();
    let id = state.add(spec("80", "172.17.0.2:80")).unwrap().id;
    state.remove(id);
    store.save(&state).unwrap();
    drop(store);
    let mut state = Store::open(dir.path()).unwrap().state;
    assert_eq!(state.add(spec("80", "172.17.0.2:80")).unwrap().id, id + 1);
}

#[test]
fn a_second_daemon_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let first = Store::open(dir.path()).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "state directory {} is in use by another publisherd (pid {})",
            dir.path().display(),
            std::process::id()
        )
    );
    assert!(error.hint().unwrap().contains("--state-dir"));
    drop(first);
    Store::open(dir.path()).unwrap();
}

#[test]
fn a_file_torn_at_any_byte_is_kept_and_reported() {
    let whole = sample().to_json();
    let mut salvaged = 0;
    let dir = tempfile::tempdir().unwrap();
    // Without its line end it is whole.
    for len in 0..whole.len() - 1 {
        fs::write(dir.path().join(PUBLICATIONS), &whole[..len]).unwrap();
        let Opened { mut state, damage, .. } = Store::open(dir.path()).unwrap();
        assert!(state.publications().is_empty(), "{len} bytes");
        assert_eq!(damage.len(), 1, "{len} bytes");
        let kept = aside(dir.path());
        assert!(kept.starts_with("publications.json.corrupt-"));
        assert!(damage[0].contains(&kept), "{}", damage[0]);
        assert!(!damage[0].contains('\n'));
        assert_eq!(fs::read(dir.path().join(&kept)).unwrap(), whole[..len]);
        fs::remove_file(dir.path().join(kept)).unwrap();
        // And it can go on from there.
        let again = Store::open(dir.path()).unwrap();
        assert_eq!(again.state, state);
        assert_eq!(again.damage, Vec::<String>::new());
        // Ids of before aren't given out again, whether or not the torn file names the next one.
        let id = state.add(spec("80", "172.17.0.2:80")).unwrap().id;
        assert!(id >= 4, "{len} bytes: {id}");
        salvaged += u32::from(id == 4);
    }
    assert!(salvaged > 100, "only {salvaged}");
}

#[test]
fn the_last_line_needs_no_end() {
    let state = sample();
    let whole = state.to_json();
    assert_eq!(State::from_json(&whole[..whole.len() - 1]), Ok(state));
}

#[test]
fn spent_ids_survive_damage_and_a_crash_before_the_first_change() {
    let dir = tempfile::tempdir().unwrap();
    let whole = sample().to_json();
    fs::write(dir.path().join(PUBLICATIONS), &whole[..whole.len() - 5]).unwrap();
    drop(Store::open(dir.path()).unwrap());
    let mut state = Store::open(dir.path()).unwrap().state;
    assert_eq!(state.add(spec("80", "172.17.0.2:80")).unwrap().id, 4);
}

#[test]
fn files_that_are_whole_and_wrong() {
    let good = String::from_utf8(sample().to_json()).unwrap();
    for (from, to, said) in [
        (r#""schema":1"#, r#""schema":2"#, "schema 2, this publisherd knows 1"),
        (r#""next_id":4"#, r#""next_id":3"#, "publication id 3 can't be"),
        (r#""id":3"#, r#""id":1"#, "publication id 1 can't be"),
        (r#""id":1"#, r#""id":0"#, "publication id 0 can't be"),
        ("172.17.0.2", "127.0.0.1", "loopback"),
        (r#""generation":1"#, r#""generation":1,"colour":1"#, "unknown field"),
        ("}\n", "}\n}\n", "trailing characters"),
        ("\n", "\0\n", "trailing characters"),
        (r#""first":8080"#, r#""first":8079"#, "both ranges"),
    ] {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(PUBLICATIONS), &text).unwrap();
        let opened = Store::open(dir.path()).unwrap();
        assert_eq!(opened.damage.len(), 1);
        assert!(opened.damage[0].contains(said), "{}", opened.damage[0]);
        assert_eq!(fs::read_to_string(dir.path().join(aside(dir.path()))).unwrap(), text);
    }
}

#[test]
fn publications_in_each_others_way_are_damage() {
    for (published, target) in [("8080", "172.17.0.9:80"), ("8000-8080", "172.17.0.9:1-81")] {
        let mut state = sample();
        state.add(spec(published, target)).unwrap();
        let error = State::from_json(&state.to_json()).unwrap_err();
        assert!(error.contains("overlap") && error.contains("172.17.0.9"), "{error}");
    }
    let mut state = sample();
    for free in ["8081", "8080/udp", "[2001:db8::1]:8080", "[fe80::1%eth1]:9000"] {
        state.add(spec(free, "172.17.0.9:80")).unwrap();
    }
    assert_eq!(State::from_json(&state.to_json()), Ok(state));
}

#[test]
fn damage_twice_in_a_second_keeps_both_files() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3 {
        fs::write(dir.path().join(PUBLICATIONS), format!("round {round}")).unwrap();
        assert_eq!(Store::open(dir.path()).unwrap().damage.len(), 1);
    }
    let kept: Vec<_> =
        names(dir.path()).into_iter().filter(|name| name.contains(".corrupt-")).collect();
    assert_eq!(kept.len(), 3, "{kept:?}");
}

#[test]
fn a_secret_of_the_wrong_length_is_kept_and_replaced() {
    for len in (0..SECRET_LEN).chain([SECRET_LEN + 1]) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("secret.key"), vec![7; len]).unwrap();
        let opened = Store::open(dir.path()).unwrap();
        assert_eq!(opened.damage.len(), 1);
        assert!(opened.damage[0].contains(&format!("{len} bytes instead of 16")));
        assert_eq!(fs::read(dir.path().join(aside(dir.path()))).unwrap(), vec![7; len]);
        assert_ne!(opened.secret, [7; SECRET_LEN]);
        assert_eq!(fs::read(dir.path().join("secret.key")).unwrap(), opened.secret);
    }
}

#[test]
fn two_directories_have_two_secrets_and_a_loose_one_is_tightened() {
    let [a, b] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let secret = Store::open(a.path()).unwrap().secret;
    assert_ne!(secret, Store::open(b.path()).unwrap().secret);
    let path = a.path().join("secret.key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(Store::open(a.path()).unwrap().secret, secret);
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn what_a_dead_daemon_left_half_written_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, .. } = Store::open(dir.path()).unwrap();
    store.save(&sample()).unwrap();
    fs::write(dir.path().join("publications.json.new"), "half").unwrap();
    drop(store);
    let Opened { store, state, damage, .. } = Store::open(dir.path()).unwrap();
    assert_eq!(state.publications().len(), 2);
    assert_eq!(damage, Vec::<String>::new());
    store.save(&state).unwrap();
    assert_eq!(names(dir.path()), ["lock", "publications.json", "secret.key"]);
}

#[test]
fn a_save_that_fails_leaves_the_state_of_before() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, .. } = Store::open(dir.path()).unwrap();
    store.save(&sample()).unwrap();
    let before = fs::read(dir.path().join(PUBLICATIONS)).unwrap();
    // A directory where the temporary file should go: nobody can write there, root neither.
    fs::create_dir(dir.path().join("publications.json.new")).unwrap();
    let error = store.save(&State::default()).unwrap_err();
    assert!(error.to_string().starts_with("can't write "), "{error}");
    assert_eq!(fs::read(dir.path().join(PUBLICATIONS)).unwrap(), before);
}

#[test]
fn a_state_directory_that_is_a_file_is_an_error_not_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "mine").unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(error.to_string().starts_with("can't create "), "{error}");
    assert_eq!(fs::read_to_string(path).unwrap(), "mine");
}

#[test]
fn the_last_id_is_not_given_out_twice() {
    let text = format!("{{\"schema\":1,\"next_id\":{},\"publications\":[]}}\n", u32::MAX);
    let mut state = State::from_json(text.as_bytes()).unwrap();
    assert!(matches!(state.add(spec("80", "172.17.0.2:80")), Err(StoreError::IdsExhausted)));
    assert!(state.publications().is_empty());
}
