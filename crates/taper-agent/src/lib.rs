//! Hold a key, obtain, narrow, delegate, sign and call.
