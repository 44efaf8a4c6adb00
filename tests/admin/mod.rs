//! The admin address.

mod budgets;
mod health;
mod keys;
mod ledger;
mod prices;
mod prompts;
mod quotes;
mod reload;
mod requests;
mod routes;
mod teams;
