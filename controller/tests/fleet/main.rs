//! The controller's service of nodes against nodes that speak the real protocol over real sockets.

mod board;
mod bounds;
mod delivery;
mod health;
mod numbers;
