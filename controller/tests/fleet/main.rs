//! The controller's service of nodes against nodes that speak the real protocol over real sockets.

mod bounds;
mod board;
mod delivery;
mod health;
mod numbers;
