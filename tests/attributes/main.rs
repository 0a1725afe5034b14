//! What annotated functions do, for every shape of function that the attributes accept.

mod arguments;
mod background;
mod bodies;
mod evictions;
mod fence;
mod functions;
mod generics;
mod key_parts;
mod keys;
mod lab;
mod methods;
mod names;
mod parameters;
mod rate_limit;
mod returns;
mod run;
mod stacked;
mod tags;
mod time;
mod traits;
