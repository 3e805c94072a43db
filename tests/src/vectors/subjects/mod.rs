//! The table of vectors, one module a subject.

mod admission;
mod argument_caveats;
mod arguments;
mod authority;
mod blocks;
mod caveats;
mod claims;
mod decision;
mod delegation;
mod depth;
mod evaluation;
mod expiry;
mod externs;
mod functions;
mod holders;
mod limits;
mod literals;
mod proof;
mod rights;
mod roots;
mod sealing;
mod signatures;
mod text;

use crate::book::Book;

/// Every vector.
pub(crate) fn all() -> Book {
    let mut book = Book::default();
    for enter in [
        text::vectors,
        roots::vectors,
        signatures::vectors,
        authority::vectors,
        holders::vectors,
        blocks::vectors,
        expiry::vectors,
        delegation::vectors,
        depth::vectors,
        limits::vectors,
        admission::vectors,
        literals::vectors,
        externs::vectors,
        caveats::vectors,
        argument_caveats::vectors,
        functions::vectors,
        evaluation::vectors,
        proof::vectors,
        claims::vectors,
        sealing::vectors,
        arguments::vectors,
        rights::vectors,
        decision::vectors,
    ] {
        enter(&mut book);
    }
    book
}
