//! The admin address.

mod health;
mod keys;
mod reload;
mod requests;
mod teams;
