//! The controller as a driver sees it.

mod commands;
mod events;
mod hotplug;
mod ownership;
mod stick;
mod stopping;
mod transfers;
