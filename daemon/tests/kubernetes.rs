//! The configuration of nodes in the manifests for Kubernetes, by the program that reads it.

use std::path::Path;
use std::process::Command;

#[test]
fn r119_the_configuration_in_the_manifest_is_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let manifest = root.join("controller/packaging/kubernetes/node.yaml");
    let manifest = std::fs::read_to_string(manifest).expect("the manifest");
    let (_, text) = manifest
        .split_once("  xdpgated.toml: |\n")
        .expect("its ConfigMap");
    let lines = text.lines().map_while(|line| line.strip_prefix("    "));
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    assert!(text.contains("[fleet]"), "{text}");

    let folder = tempfile::tempdir().expect("a folder");
    let check = |text: &str| {
        let file = folder.path().join("xdpgated.toml");
        std::fs::write(&file, text).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_xdpgated"));
        command.args(["check", "--config"]).arg(file);
        let ended = command.output().expect("xdpgated");
        let stderr = String::from_utf8(ended.stderr).expect("UTF-8");
        (ended.status.success(), stderr)
    };
    assert_eq!(check(&text), (true, String::new()));
    let (right, stderr) = check(&text.replace("token_file", "token_fil"));
    assert!(!right && stderr.contains("fleet.token_fil"), "{stderr}");
}
