//! The capability profile: issue, narrow, delegate, verify and present.
