//! The fleet controller of the XDP firewall xdpgate, and its command-line client.

use std::process::ExitCode;

fn main() -> ExitCode {
    xdpgate_controller::main()
}
