//! The fleet controller of the XDP firewall xdpgate, and its command-line client.

fn main() {}
