//! The daemon; all of it is in [`xdpgated::agent`].

use std::process::ExitCode;

fn main() -> ExitCode {
    xdpgated::agent::main()
}
