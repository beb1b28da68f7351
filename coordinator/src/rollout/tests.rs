mod orders;
mod properties;
mod world;
