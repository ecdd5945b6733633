//! Blocks of a bucket, brought back to disk by the real program, and what it says when that cannot be.

mod choice;
mod damaged;
mod disk;
mod killed;
mod resumed;
mod returned;
mod scene;
mod trouble;
