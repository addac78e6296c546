//! Errors in words.

use std::error::Error;

/// Returns an error and all its causes on one line: `cannot write x: no space left on device`.
#[must_use]
pub fn explain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{fmt, io};

    use super::*;

    #[derive(Debug)]
    struct Unwritten(io::Error);

    impl fmt::Display for Unwritten {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("cannot write the log")
        }
    }

    impl Error for Unwritten {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn an_error_is_explained_with_its_causes_on_one_line() {
        let error = Unwritten(io::Error::other(Unwritten(io::Error::other("the disk is full"))));
        assert_eq!(explain(&error), "cannot write the log: cannot write the log: the disk is full");
        assert_eq!(explain(&io::Error::other("no")), "no");
    }
}
