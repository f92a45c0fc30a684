//! The API over real sockets: the real application, the real SQLite store.

mod access;
mod bounds;
mod connected;
mod drops;
mod events;
mod feeds;
mod forwarded;
mod nodes;
mod oidc;
mod policies;
mod rollouts;
mod server;
mod sessions;
mod sets;
mod shape;
