//! The API over real sockets: the real application, the real SQLite store.

mod access;
mod bounds;
mod connected;
mod events;
mod feeds;
mod nodes;
mod policies;
mod rollouts;
mod server;
mod sets;
mod shape;
