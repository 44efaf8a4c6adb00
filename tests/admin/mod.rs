//! The admin address.

mod health;
mod keys;
mod ledger;
mod prices;
mod reload;
mod requests;
mod teams;
