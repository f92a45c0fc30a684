//! The commands that speak to a running controller, and those that convert what others keep.

pub mod xdrop;
