//! What only the file has: its schema, its lock, its damage.

use std::fs;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rusqlite::Connection;
use tokio::runtime::Builder;

use super::Sqlite;
use super::migrations::{At, SCHEMA, copy_path};
use crate::store::{CommitError, Digest, Key, OpenError, Revision, Store, StoreError, Transaction};

/// Files as older versions left them, made by the SQL of then.
const OLDER: [(u32, &str); 2] = [
    (1, include_str!("tests/schema-1.sql")),
    (2, include_str!("tests/schema-2.sql")),
];

fn block_on<T>(future: impl Future<Output = T>) -> T {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn put(name: &str, value: &str) -> Transaction {
    Transaction {
        expect: vec![],
        write: vec![(key(name), Some(value.to_owned().into()))],
    }
}

fn older(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

/// Whether all that is in the older files is there.
fn has_everything(store: &Sqlite) {
    assert_eq!(store.epoch(), "0123456789abcdef0123456789abcdef");
    block_on(async {
        let page = store.list("", None, 10, None).await.unwrap();
        assert_eq!(page.revision, Revision(4));
        let records: Vec<_> = page
            .records
            .iter()
            .map(|(key, record)| (key.as_str(), record.revision.0, record.value.clone()))
            .collect();
        let web = ("policy/web", 3, "{\"version\":2}".into());
        assert_eq!(records, [("group/all", 2, "".into()), web]);
        // What was before, and what was deleted since.
        let page = store.list("", None, 10, Some(Revision(2))).await.unwrap();
        let keys: Vec<_> = page.records.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["group/all", "policy/old", "policy/web"]);
        assert_eq!(page.records[2].1.value, "{\"version\":1}");
        for chunk in [&b"one chunk"[..], b"", b"\0\xff\0"] {
            let found = store.chunk(Digest::of(chunk)).await.unwrap();
            assert_eq!(found.as_deref(), Some(chunk));
        }
        assert_eq!(
            store
                .sweep(&Default::default(), std::time::Duration::MAX)
                .await
                .unwrap(),
            0
        );
    });
}

#[test]
fn r87_a_file_of_each_older_schema_is_brought_to_this_one_and_loses_nothing() {
    assert_eq!(
        OLDER.len() as u32 + 1,
        SCHEMA,
        "add the file of the schema that was the newest"
    );
    for (schema, sql) in OLDER {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.db");
        older(&path, sql);
        let store = Sqlite::open(&path).unwrap();
        has_everything(&store);
        let next = block_on(store.commit(put("new", ""))).unwrap();
        assert_eq!(next, Revision(5));
        drop(store);
        // The copy is what was before, and only the owner reads it.
        let copy = copy_path(&path, schema);
        assert_eq!(
            fs::metadata(&copy).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let copy = Connection::open(copy).unwrap();
        let version: u32 = copy
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap();
        assert_eq!(version, schema);
        // A second start changes nothing.
        assert_eq!(
            block_on(Sqlite::open(&path).unwrap().get(&key("new")))
                .unwrap()
                .unwrap()
                .revision,
            next
        );
    }
}

/// The schema is that of a new file, whatever the file was at first.
#[test]
fn r87_a_migrated_schema_is_the_one_of_a_new_file() {
    let schema = |path: &Path| {
        let file = Connection::open(path).unwrap();
        let mut select = file
            .prepare("SELECT name, sql FROM sqlite_schema ORDER BY 1")
            .unwrap();
        let row = |row: &rusqlite::Row<'_>| {
            let sql: Option<String> = row.get(1)?;
            let words = sql.map(|sql| sql.split_whitespace().collect::<Vec<_>>().join(" "));
            Ok((row.get(0)?, words))
        };
        let rows = select.query_map([], row).unwrap();
        rows.collect::<Result<Vec<(String, Option<String>)>, _>>()
            .unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let new = folder.path().join("new.db");
    drop(Sqlite::open(&new).unwrap());
    for (version, sql) in OLDER {
        let path = folder.path().join(format!("{version}.db"));
        older(&path, sql);
        drop(Sqlite::open(&path).unwrap());
        assert_eq!(schema(&path), schema(&new));
    }
}

const CHILD: &str = "XDPGATE_TEST_MIGRATE";

/// Not a test of its own: the process that is killed in the middle of a migration.
#[test]
fn r87_child() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let ask = |at: At| {
        // Who started this one kills it here, or says to go on.
        println!("\nAT {at:?}");
        std::io::stdin().read_line(&mut String::new()).unwrap();
    };
    Sqlite::open_with(Path::new(&path), &mut { ask }).unwrap();
    println!("\nAT the end");
}

#[test]
fn r87_a_migration_that_is_killed_at_any_step_is_made_by_the_next_start() {
    for (schema, sql) in OLDER {
        let mut steps = vec![At::Copying, At::Copied];
        steps.extend((schema + 1..=SCHEMA).flat_map(|n| [At::Changed(n), At::Committed(n)]));
        for (kill_at, step) in steps.iter().enumerate() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("c.db");
            older(&path, sql);
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "store::sqlite::tests::r87_child", "--nocapture"])
                .env(CHILD, &path)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap())
                .lines()
                .map(Result::unwrap);
            for expected in &steps[..=kill_at] {
                let line = lines.find(|line| line.starts_with("AT ")).unwrap();
                assert_eq!(line, format!("AT {expected:?}"));
                if expected != step {
                    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
                }
            }
            child.kill().unwrap();
            child.wait().unwrap();
            has_everything(&Sqlite::open(&path).unwrap());
            // Whether the kill came before or after, there is a copy of what was at first.
            let copy = Connection::open(copy_path(&path, schema)).unwrap();
            let records: u32 = copy
                .query_row("SELECT count(*) FROM record", [], |row| row.get(0))
                .unwrap();
            assert_eq!(records, 2);
        }
    }
}

#[test]
fn r87_the_database_itself_refuses_what_must_not_be() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.db");
    drop(Sqlite::open(&path).unwrap());
    let file = Connection::open(&path).unwrap();
    let good = "INSERT INTO record (key, revision, value) VALUES ('a', 1, x'00')";
    file.execute(good, []).unwrap();
    let bad = [
        good,
        "INSERT INTO record (key, revision, value) VALUES (NULL, 1, x'00')",
        "INSERT INTO record (key, revision, value) VALUES ('b', NULL, x'00')",
        "INSERT INTO record (key, revision, value) VALUES ('b', 1, NULL)",
        "INSERT INTO record (key, revision, value) VALUES ('b', 1, 'text')",
        "INSERT INTO record (key, revision, value) VALUES ('b', 0, x'00')",
        "INSERT INTO store (id, epoch, revision, compacted) VALUES (2, 'b', 0, 0)",
        "UPDATE store SET compacted = revision + 1",
        "INSERT INTO chunk (digest, put) VALUES (x'00', 0)",
        "INSERT INTO history (revision, key, deleted, value) VALUES (1, 'a', 2, x'')",
    ];
    for sql in bad {
        assert!(file.execute(sql, []).is_err(), "{sql}");
    }
}

#[test]
fn a_second_process_and_a_later_schema_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.db");
    let store = Sqlite::open(&path).unwrap();
    for end in ["", "-wal", "-shm", ".lock"] {
        let file = format!("{}{end}", path.display());
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600,
            "{file}"
        );
    }
    let second = Sqlite::open(&path).unwrap_err();
    let text = "is in use by another process: stop that one, or give this one a file of its own";
    assert_eq!(second.to_string(), format!("{} {text}", path.display()));
    // A watch that is still held does not keep the file.
    let watch = block_on(store.watch(Revision(0))).unwrap();
    drop(store);
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", SCHEMA + 1)
        .unwrap();
    let newer = Sqlite::open(&path).unwrap_err();
    assert!(
        matches!(newer, OpenError::Newer { found, known, .. } if found == SCHEMA + 1 && known == SCHEMA)
    );
    drop(watch);
}

#[test]
fn damage_is_found_at_the_start_and_names_the_mend() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.db");
    let store = Sqlite::open(&path).unwrap();
    block_on(async {
        for i in 0..200 {
            store
                .commit(put(&format!("k/{i}"), &"x".repeat(500)))
                .await
                .unwrap();
        }
    });
    drop(store);
    let mut file = fs::File::options().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(4096 * 12)).unwrap();
    file.write_all(&[0xa5; 4096 * 4]).unwrap();
    let damaged = Sqlite::open(&path).unwrap_err();
    assert!(matches!(damaged, OpenError::Damaged { .. }), "{damaged}");
    let mend = "move it away and restore the last backup with `xdpgate-controller restore`";
    assert!(damaged.to_string().ends_with(mend), "{damaged}");

    fs::write(
        &path,
        "not a database, but some text that is long enough".repeat(100),
    )
    .unwrap();
    let foreign = Sqlite::open(&path).unwrap_err();
    assert!(matches!(foreign, OpenError::Damaged { .. }), "{foreign}");
}

/// SQLite's own limit of pages gives the same answer as a disk without room.
#[test]
fn a_full_disk_refuses_whole_transactions_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.db");
    let store = Sqlite::open(&path).unwrap();
    block_on(async {
        let limit = |pages| {
            store
                .writer
                .ask(move |answer| super::writer::Job::Limit(pages, answer))
        };
        let before = store.commit(put("a", "1")).await.unwrap();
        limit(1).await.unwrap();
        let large = Transaction {
            expect: vec![],
            write: (0..50)
                .map(|i| (key(&format!("b/{i}")), Some(vec![i; 9_000].into())))
                .collect(),
        };
        let full = store.commit(large.clone()).await;
        assert!(
            matches!(full, Err(CommitError::Store(StoreError::Full(_)))),
            "{full:?}"
        );
        let random: Vec<u8> = (0..400_000).map(|_| rand::random()).collect();
        let chunk = store.put_chunks(vec![random.into()]).await;
        assert!(matches!(chunk, Err(StoreError::Full(_))), "{chunk:?}");
        let page = store.list("", None, 100, None).await.unwrap();
        assert_eq!((page.revision, page.records.len()), (before, 1));
        limit(1_000_000).await.unwrap();
        assert_eq!(store.commit(large).await.unwrap(), Revision(before.0 + 1));
    });
}
