//! The admin address.

mod health;
mod keys;
mod prices;
mod reload;
mod requests;
mod teams;
