//! What the tests share: which files the repository holds, for those that read it, and cases that run at once.

pub mod tree;

/// Runs `test` with each of `cases` at once, each in a thread of its own: for tests that mostly wait.
pub fn at_once<T: Sync>(cases: &[T], test: impl Fn(&T) + Sync) {
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| test(case));
        }
    });
}
