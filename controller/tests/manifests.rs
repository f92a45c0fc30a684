//! The manifests for Kubernetes, judged by its own schemas, and what is in them by the program that reads it.

use std::fs;
use std::path::Path;
use std::process::Command;

const CONTROLLER: &str = env!("CARGO_BIN_EXE_xdpgate-controller");

/// The oldest and the newest that `kubernetes-validate` knows.
const VERSIONS: [&str; 2] = ["1.25.0", "1.37.0"];

/// An interpreter that has kubernetes-validate. `None`, said aloud, where it cannot be had; under CI it can.
fn python(root: &Path) -> Option<String> {
    let made = Command::new(root.join("scripts/python-with"))
        .arg("controller/tests/python/manifests.txt")
        .output()
        .expect("scripts/python-with");
    if made.status.success() {
        return Some(String::from_utf8(made.stdout).unwrap().trim().to_owned());
    }
    let error = String::from_utf8_lossy(&made.stderr);
    assert!(std::env::var_os("CI").is_none(), "{error}");
    println!("skipped: {error}");
    None
}

#[test]
fn r119_manifests_are_as_kubernetes_wants_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let Some(python) = python(&root) else {
        return;
    };
    let script = root.join("controller/tests/python/manifests.py");
    let judge = |folder: &Path, out: &Path| {
        let mut command = Command::new(&python);
        command.arg(&script).arg(folder).arg(out).args(VERSIONS);
        let ended = command.output().expect("python");
        let stdout = String::from_utf8(ended.stdout).unwrap();
        let stderr = String::from_utf8(ended.stderr).unwrap();
        (ended.status.code(), stdout + &stderr)
    };
    let folder = root.join("controller/packaging/kubernetes");
    let out = tempfile::tempdir().unwrap();
    let (code, said) = judge(&folder, out.path());
    assert_eq!(code, Some(0), "{said}");

    let file = out.path().join("xdpgate-controller.toml");
    let mut check = Command::new(CONTROLLER);
    check.args(["check", "--config"]).arg(&file);
    let checked = check.output().expect("xdpgate-controller");
    let stderr = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{stderr}");
    assert_eq!(stderr, "");
    assert!(out.path().join("xdpgated.toml").is_file());

    // What is wrong would be found: a key that is not known, a number that is none, a file that is not listed.
    let bad = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        let text = fs::read_to_string(entry.path()).unwrap();
        let text = text
            .replace(
                "terminationGracePeriodSeconds: 30",
                "terminationGraceSeconds: 30",
            )
            .replace("containerPort: 8443", "containerPort: nodes");
        fs::write(bad.path().join(entry.file_name()), text).unwrap();
    }
    fs::write(bad.path().join("other.yaml"), "").unwrap();
    let (code, said) = judge(bad.path(), out.path());
    assert_eq!(code, Some(1), "{said}");
    for words in ["terminationGraceSeconds", "'nodes' is not", "other.yaml"] {
        assert!(said.contains(words), "no {words} in: {said}");
    }
}
