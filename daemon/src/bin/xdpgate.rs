//! The command-line client; all of it is in [`xdpgated::client`].

use std::process::ExitCode;

fn main() -> ExitCode {
    xdpgated::client::main()
}
