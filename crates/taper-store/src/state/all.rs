//! Everything that the state keeps, in the form in which it can be carried over.

use super::State;
use crate::change::Lookup as _;
use crate::draft::TOKENS;
use crate::error::StoreError;
use crate::kept::{Carried, TokenHash};
use crate::layout::{self, CLIENT, COUNTER, Counted, FAMILY, GRANT, HISTORY, REVOCATION, ROOT_KEYS};

impl State {
    /// Shows all of it. Counters are as those of a journal that begins: none of its records is among
    /// their calls.
    pub(crate) fn each(
        &self,
        mut show: impl FnMut(Carried) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.check()?;
        for prefix in [GRANT, REVOCATION, HISTORY, COUNTER, CLIENT, ROOT_KEYS, FAMILY] {
            for entry in self.tree()?.scan_prefix([prefix]) {
                let (key, value) = entry?;
                match prefix {
                    GRANT => show(Carried::Grant(layout::parse(&value)?))?,
                    REVOCATION => show(Carried::Revocation(layout::parse(&value)?))?,
                    HISTORY => {
                        let seq = layout::number(key.get(1..).unwrap_or_default())?;
                        // A revocation has its own.
                        if self.revocation(seq)?.is_none() {
                            let history = layout::hash(&value)?;
                            show(Carried::Feed { seq, history })?;
                        }
                    }
                    COUNTER => {
                        let counted = Counted::from_bytes(&value)?;
                        show(Carried::Count {
                            name: layout::last32(&key)?,
                            calls: counted.calls,
                            next: 0,
                            until: counted.until,
                        })?;
                    }
                    CLIENT => show(Carried::Client(layout::parse(&value)?))?,
                    ROOT_KEYS => show(Carried::RootKeys(layout::parse(&value)?))?,
                    _ => {
                        let family: crate::kept::RefreshRecord = layout::parse(&value)?;
                        let tokens: Result<Vec<TokenHash>, StoreError> =
                            self.tokens(&family.family)?.collect();
                        for tokens in tokens?.chunks(TOKENS) {
                            show(Carried::Refresh {
                                family: family.clone(),
                                tokens: tokens.to_vec(),
                            })?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
