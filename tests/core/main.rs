//! Tests without a mount: each layer against its promises, and all of them against a model.

mod fetch;
mod reference;
mod registry_http;
mod stack;
mod store;
