mod orders;
mod properties;
mod shadow;
mod world;
