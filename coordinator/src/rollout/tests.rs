mod plans;
mod properties;
mod world;
