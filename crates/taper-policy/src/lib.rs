//! Load, lint and decide Datalog policies over a verified presentation.
