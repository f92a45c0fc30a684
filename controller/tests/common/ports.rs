//! Ports for programs that a test starts.

use std::collections::BTreeSet;
use std::net::TcpListener;

/// Below those that the kernel gives to connections: whoever is started again finds its port free.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// So many addresses of loopback that nobody listens at.
pub fn free(many: usize) -> Vec<String> {
    let mut free = BTreeSet::new();
    while free.len() < many {
        let address = format!("127.0.0.1:{}", rand::random_range(PORTS));
        if TcpListener::bind(&address).is_ok() {
            free.insert(address);
        }
    }
    free.into_iter().collect()
}
