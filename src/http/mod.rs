//! The doors: sockets to requests and back.

pub mod config;
