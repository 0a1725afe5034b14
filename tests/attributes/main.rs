//! What annotated functions do, for every shape of function that the attributes accept.

mod arguments;
mod bodies;
mod evictions;
mod functions;
mod keys;
mod lab;
mod methods;
mod names;
mod returns;
mod stacked;
mod traits;
