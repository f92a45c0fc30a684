//! Generates messages, client, server and the descriptor for reflection from the `.proto` files.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio, exit};

const PROTO: &str = "proto/xdpgate/v1/xdpgate.proto";

fn main() {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-env-changed=PROTOC");
    let protoc = env::var_os("PROTOC").unwrap_or_else(|| "protoc".into());
    if !runs(&protoc) {
        fail(&format!(
            "{} does not run: protoc is needed to generate the gRPC code; run scripts/setup, \
             install protobuf-compiler, or set PROTOC=...",
            protoc.display()
        ));
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    // By their names the client finds the messages in the descriptor.
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    tonic_prost_build::configure()
        .build_transport(env::var_os("CARGO_FEATURE_TRANSPORT").is_some())
        .file_descriptor_set_path(out.join("xdpgate.v1.bin"))
        .compile_with_config(config, &[PROTO], &["proto"])
        .unwrap_or_else(|e| fail(&format!("{PROTO}: {e}")));
}

fn runs(protoc: &std::ffi::OsStr) -> bool {
    Command::new(protoc)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn fail(message: &str) -> ! {
    println!(
        "cargo:warning={}",
        message.lines().next().unwrap_or_default()
    );
    eprintln!("{message}");
    exit(1);
}
