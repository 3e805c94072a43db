//! CPU work, bounded: signature checks and policy evaluation run here, off the runtime, so that a
//! flood of them costs a quick refusal instead of the latency of everything else. What is known to be
//! short stays where it is while there is room ([`CpuPool::run_short`]), or has a place beside what runs and
//! waits here ([`CpuPool::run_now_at`]). One thing has no bound here: what is short and comes once at a time from
//! each connection ([`CpuPool::run_now`]). The number of connections bounds it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Runs closures on threads outside the runtime: at most `workers` at once and `queue` more waiting.
/// Clones share the bounds.
#[derive(Clone, Debug)]
pub struct CpuPool {
    /// For what stays on its thread: one less than there are workers, but at least one, so that a flood of it leaves a
    /// thread of the runtime where there are several, and is shed like everything else.
    here: Arc<Semaphore>,
    /// For what stays and may still wait for a disk: one less than there are workers, so that it can hold up all of
    /// the runtime nowhere.
    touching: Arc<Semaphore>,
    /// How much runs on the spot.
    on_the_spot: Arc<AtomicUsize>,
    /// How much of that has a place.
    placed: Arc<AtomicUsize>,
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
    /// Turns of what stands behind everything else.
    behind: Arc<Semaphore>,
    workers: usize,
    places: usize,
}

/// A place in a pool, given back when it is dropped.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit);

/// A turn on the spot, over when it is dropped.
#[derive(Debug)]
pub struct Turn<'a>(#[expect(dead_code, reason = "it is held")] SemaphorePermit<'a>);

/// Why a closure gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The queue is full; nothing was run, and a later attempt may succeed.
    #[error("all workers are busy and the queue is full")]
    Busy,
    /// The closure panicked, or the runtime is ending.
    #[error("the work failed without an answer")]
    Failed,
}

impl CpuPool {
    /// A pool of `workers` (at least one) closures at once and `queue` waiting ones.
    pub fn new(workers: usize, queue: usize) -> Self {
        let workers = workers.clamp(1, Semaphore::MAX_PERMITS);
        let places = workers.saturating_add(queue).min(Semaphore::MAX_PERMITS);
        Self {
            here: Arc::new(Semaphore::new(workers.saturating_sub(1).max(1))),
            touching: Arc::new(Semaphore::new(workers.saturating_sub(1))),
            on_the_spot: Arc::default(),
            placed: Arc::default(),
            running: Arc::new(Semaphore::new(workers)),
            admitted: Arc::new(Semaphore::new(places)),
            behind: Arc::new(Semaphore::new(workers)),
            workers,
            places,
        }
    }

    /// How many closures run now, those that stay on their thread included, and how many wait: for a worker, or with a
    /// place for their turn.
    pub fn in_use(&self) -> (usize, usize) {
        let running = self.workers.saturating_sub(self.running.available_permits());
        let admitted = self.places.saturating_sub(self.admitted.available_permits());
        let here = self.on_the_spot.load(Ordering::Relaxed);
        let placed = self.placed.load(Ordering::Relaxed);
        let at_work = running.saturating_add(placed);
        (running.saturating_add(here), admitted.saturating_sub(at_work))
    }

    /// Runs `f` on a thread of its own and answers what it returns. Waiting closures run in the order
    /// in which they came. Dropping the returned future withdraws a closure that waits; one that runs
    /// keeps its place until it ends.
    ///
    /// # Errors
    /// [`PoolError::Busy`] at once when the queue is full, [`PoolError::Failed`] when `f` panicked.
    pub async fn run<T, F>(&self, f: F) -> Result<T, PoolError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let place = self.place()?;
        self.run_at(place, f).await
    }

    /// A place among all that run and wait, for work that has a beginning on the spot: it is refused before that or
    /// never.
    ///
    /// # Errors
    /// [`PoolError::Busy`] when there is none.
    pub fn place(&self) -> Result<Place, PoolError> {
        let place = Arc::clone(&self.admitted).try_acquire_owned();
        place.map(Place).map_err(|_| PoolError::Busy)
    }

    /// As [`Self::run`], with a place that was taken before.
    ///
    /// # Errors
    /// [`PoolError::Failed`] when `f` panicked.
    pub async fn run_at<T, F>(&self, place: Place, f: F) -> Result<T, PoolError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let worker = Arc::clone(&self.running)
            .acquire_owned()
            .await
            .map_err(|_| PoolError::Failed)?;
        let work = move || {
            let answer = f();
            drop((worker, place));
            answer
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| PoolError::Failed)
    }

    /// As [`Self::run`], for what may come in great number at once and is not urgent: only as many of it as there are
    /// workers are in the queue, the others wait for their turn in front of it.
    ///
    /// # Errors
    /// Those of [`Self::run`]; [`PoolError::Busy`] when its turn does not come within `patience`.
    pub async fn run_behind<T, F>(&self, patience: Duration, f: F) -> Result<T, PoolError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let turn = tokio::time::timeout(patience, self.behind.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(PoolError::Busy);
        };
        self.run(f).await
    }

    /// Runs `f`, which never blocks and is over in the time of one signature check: on the spot, which saves two
    /// changes of threads, while another thread of the runtime is left for everything else; otherwise as
    /// [`Self::run`] does.
    ///
    /// # Errors
    /// Those of [`Self::run`].
    pub async fn run_short<T, F>(&self, f: F) -> Result<T, PoolError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        if let Ok(_here) = self.here.try_acquire() {
            return self.run_now(f);
        }
        self.run(f).await
    }

    /// A turn to run on the spot what is short and may touch a file besides, as appending to one does; who has a
    /// [`Place`] may wait for it. There is never one on the last thread of the runtime, which a disk that stands still
    /// would stop.
    pub async fn turn(&self) -> Option<Turn<'_>> {
        if self.workers == 1 {
            return None;
        }
        self.touching.acquire().await.ok().map(Turn)
    }

    /// Runs `f` on the spot, whatever else runs: only for what never blocks, is over in the time of one signature check,
    /// and comes once at a time from each connection, so that their number bounds how much of it waits.
    ///
    /// # Errors
    /// [`PoolError::Failed`] when `f` panicked.
    pub fn run_now<T>(&self, f: impl FnOnce() -> T) -> Result<T, PoolError> {
        let _counted = OnTheSpot::begin(&self.on_the_spot);
        catch_unwind(AssertUnwindSafe(f)).map_err(|_| PoolError::Failed)
    }

    /// As [`Self::run_now`], of work that has a place: its turn has come.
    ///
    /// # Errors
    /// [`PoolError::Failed`] when `f` panicked.
    pub fn run_now_at<T>(&self, _place: &Place, f: impl FnOnce() -> T) -> Result<T, PoolError> {
        let _counted = OnTheSpot::begin(&self.placed);
        self.run_now(f)
    }
}

/// Counts what runs on the spot, until it ends in whatever way.
struct OnTheSpot<'a>(&'a AtomicUsize);

impl<'a> OnTheSpot<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for OnTheSpot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_full_pool_refuses_at_once_and_recovers() {
        let pool = CpuPool::new(1, 1);
        let (release, held) = mpsc::channel::<()>();
        let first = pool.run(move || held.recv().is_ok());
        let second = pool.run(|| 2);
        let observer = async {
            // The two above were polled first and hold both places.
            assert_eq!(pool.in_use(), (1, 1));
            let third = pool.run(|| 3).await;
            release.send(()).unwrap();
            third
        };
        let (first, second, third) = tokio::join!(biased; first, second, observer);
        assert_eq!((first, second, third), (Ok(true), Ok(2), Err(PoolError::Busy)));
        assert_eq!(pool.run(|| 4).await, Ok(4));
        assert_eq!(pool.in_use(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_stands_behind_leaves_the_queue_to_others() {
        let (pool, patience) = (CpuPool::new(1, 2), Duration::from_secs(1));
        let (release, held) = mpsc::channel::<()>();
        let busy = pool.run(move || held.recv().is_ok());
        let one = pool.run_behind(patience, || 1);
        let two = pool.run_behind(patience, || 2);
        let others = async {
            assert_eq!(pool.in_use(), (1, 1), "one of the two waits in front");
            let mut urgent = Box::pin(pool.run(|| 3));
            assert!(
                urgent.as_mut().now_or_never().is_none(),
                "it has a place in the queue"
            );
            tokio::time::advance(patience * 2).await;
            release.send(()).unwrap();
            urgent.await
        };
        let (busy, one, two, urgent) = tokio::join!(biased; busy, one, two, others);
        assert_eq!((busy, one, urgent), (Ok(true), Ok(1), Ok(3)));
        assert_eq!(two, Err(PoolError::Busy), "its turn did not come in time");
        assert_eq!(pool.run_behind(patience, || 4).await, Ok(4));
    }

    #[tokio::test]
    async fn what_is_short_stays_unless_others_do() {
        let pool = CpuPool::new(1, 1);
        let here = std::thread::current().id();
        let ran_at = || std::thread::current().id();
        let (release, held) = mpsc::channel::<()>();
        let first = pool.run(move || held.recv().is_ok());
        let rest = async {
            assert_eq!(pool.run_short(ran_at).await, Ok(here), "no worker is free");
            let taken = pool.here.try_acquire().unwrap();
            let mut second = Box::pin(pool.run_short(ran_at));
            assert!(second.as_mut().now_or_never().is_none(), "it waits its turn");
            assert_eq!(pool.run_short(ran_at).await, Err(PoolError::Busy));
            release.send(()).unwrap();
            let second = second.await;
            drop(taken);
            second
        };
        let (first, second) = tokio::join!(biased; first, rest);
        assert_eq!(first, Ok(true));
        assert_ne!(second.unwrap(), here);
        assert_eq!(pool.run_short(ran_at).await, Ok(here), "its place is free again");
    }

    #[tokio::test]
    async fn what_touches_a_file_leaves_a_thread() {
        let here = std::thread::current().id();
        let ran_at = || std::thread::current().id();
        assert!(CpuPool::new(1, 1).turn().await.is_none(), "it is the last one");
        let pool = CpuPool::new(2, 0);
        let turn = pool.turn().await.unwrap();
        let mut next = Box::pin(pool.turn());
        assert!(next.as_mut().now_or_never().is_none(), "it waits");
        drop(turn);
        assert!(next.await.is_some());
        let places = [pool.place().unwrap(), pool.place().unwrap()];
        assert_eq!(pool.run(ran_at).await, Err(PoolError::Busy));
        for place in places {
            assert_ne!(pool.run_at(place, ran_at).await.unwrap(), here);
        }
        assert_eq!(pool.run_now(ran_at), Ok(here));
        assert_eq!(
            pool.run_now(|| pool.in_use()),
            Ok((1, 0)),
            "who stays is at work too"
        );
        let panics = || -> () { panic!("on purpose") };
        assert_eq!(pool.run_now(panics), Err(PoolError::Failed));
        assert_eq!(pool.in_use(), (0, 0));
        let place = pool.place().unwrap();
        assert_eq!(pool.in_use(), (0, 1), "its turn has not come");
        assert_eq!(
            pool.run_now_at(&place, || pool.in_use()),
            Ok((1, 0)),
            "who is at work does not wait"
        );
        assert_eq!(pool.run_now_at(&place, panics), Err(PoolError::Failed));
        assert_eq!(pool.in_use(), (0, 1));
        drop(place);
        assert_eq!(pool.in_use(), (0, 0));
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_frees_its_place() {
        let pool = CpuPool::new(1, 0);
        for _ in 0..3 {
            assert_eq!(
                pool.run(|| -> u8 { panic!("on purpose") }).await,
                Err(PoolError::Failed)
            );
            assert_eq!(
                pool.run_short(|| -> u8 { panic!("on purpose") }).await,
                Err(PoolError::Failed)
            );
        }
        assert_eq!(pool.run(|| 1).await, Ok(1));
    }

    #[tokio::test]
    async fn a_withdrawn_closure_frees_its_place() {
        let pool = CpuPool::new(1, 1);
        let (release, held) = mpsc::channel::<()>();
        let first = pool.run(move || held.recv().is_ok());
        let rest = async {
            let mut waiting = Box::pin(pool.run(|| 2));
            assert!(waiting.as_mut().now_or_never().is_none());
            assert_eq!(pool.run(|| 3).await, Err(PoolError::Busy));
            drop(waiting);
            let mut again = Box::pin(pool.run(|| 4));
            assert!(again.as_mut().now_or_never().is_none(), "the place is free again");
            release.send(()).unwrap();
            again.await
        };
        assert_eq!(tokio::join!(biased; first, rest), (Ok(true), Ok(4)));
    }
}
