//! Generates messages, client, server and the descriptor for reflection from the `.proto` files.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio, exit};

/// The daemon's own API, and what nodes and controllers say to each other: a descriptor for each, since
/// a daemon serves only the first.
const NODE: &str = "proto/xdpgate/v1/xdpgate.proto";
const FLEET: &str = "proto/xdpgate/fleet/v1/fleet.proto";

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
    let transport = env::var_os("CARGO_FEATURE_TRANSPORT").is_some();
    let generate = |proto: &str, descriptor: &str, external: Option<(&str, &str)>| {
        // By their names the client finds the messages in the descriptor.
        let mut config = tonic_prost_build::Config::new();
        config.enable_type_names();
        let mut builder = tonic_prost_build::configure()
            .build_transport(transport)
            .file_descriptor_set_path(out.join(descriptor));
        // In a folder of its own: what is imported is written as well, over what is there.
        if let Some((package, module)) = external {
            let folder = out.join("importing");
            fs::create_dir_all(&folder).unwrap_or_else(|e| fail(&format!("OUT_DIR: {e}")));
            builder = builder.extern_path(package, module).out_dir(folder);
        }
        builder
            .compile_with_config(config, &[proto], &["proto"])
            .unwrap_or_else(|e| fail(&format!("{proto}: {e}")));
    };
    generate(NODE, "xdpgate.v1.bin", None);
    generate(
        FLEET,
        "xdpgate.fleet.v1.bin",
        Some((".xdpgate.v1", "crate::v1")),
    );
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
