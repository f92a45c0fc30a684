//! `xdpgate-controller backup` and `restore`, by the binary.

use std::process::{Command, Output};

use xdpgate_controller::store::{Key, Store, Transaction, sqlite::Sqlite};

const CONTROLLER: &str = env!("CARGO_BIN_EXE_xdpgate-controller");

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(CONTROLLER);
    command
        .args(arguments)
        .output()
        .expect("xdpgate-controller")
}

#[tokio::test]
async fn r124_the_state_goes_to_one_file_and_back_while_a_controller_has_it_open() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    let (one, two, file) = (path("one"), path("two"), path("fleet.backup"));
    std::fs::create_dir(&one).unwrap();
    let store = Sqlite::open(format!("{one}/controller.db")).unwrap();
    let key = Key::new("group/web").unwrap();
    let write = vec![(key.clone(), Some("{}".into()))];
    let create = Transaction {
        expect: vec![(key.clone(), None)],
        write,
    };
    store.commit(create).await.unwrap();

    let made = run(&["backup", &file, "--state-dir", &one]);
    assert!(made.status.success(), "{made:?}");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(said.contains("1 records and 0 chunks"), "{said}");

    let restored = run(&["restore", &file, "--state-dir", &two]);
    assert!(restored.status.success(), "{restored:?}");
    let other = Sqlite::open(format!("{two}/controller.db")).unwrap();
    let record = other.get(&key).await.unwrap().expect("the record");
    assert_eq!(record.value, "{}");
    assert_ne!(other.epoch(), store.epoch(), "nodes begin anew");
    drop(other);

    let again = run(&["restore", &file, "--state-dir", &two]);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(said.contains("the store is not empty"), "{said}");
    let in_use = run(&["restore", &file, "--state-dir", &one]);
    let said = String::from_utf8_lossy(&in_use.stderr);
    assert!(said.contains("is in use by another process"), "{said}");
}
