//! Handles are futures on any runtime, and on none.

use std::future::Future;
use std::pin::pin;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use diesel_session::{Executor, JobHandle, Result};
use tokio::runtime::{Builder, Runtime};

use super::db::{Conn, Database, insert, stored};

struct Call<F>(Mutex<F>);

impl<F: FnMut() + Send + 'static> Wake for Call<F> {
    fn wake(self: Arc<Self>) {
        (self.0.lock().unwrap())();
    }
}

/// A waker that calls a function.
pub(crate) fn waker(f: impl FnMut() + Send + 'static) -> Waker {
    Waker::from(Arc::new(Call(Mutex::new(f))))
}

/// All that a runtime needs.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let thread = std::thread::current();
    let waker = waker(move || thread.unpark());
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap()
}

/// A unit of work across awaits, and jobs at the same time.
async fn work(executor: Executor<Conn>) -> Result<()> {
    let jobs: Vec<_> = (0..20).map(|n| executor.run(move |session| insert(session, &format!("job {n:02}")))).collect();
    for job in jobs {
        assert_eq!(job.await?, 1);
    }
    let session = executor.session().await?;
    for n in 0..3 {
        session.run(move |session| insert(session, &format!("session {n}"))).await?;
    }
    session.commit().await?;
    Ok(())
}

#[test]
fn jobs_and_sessions_are_awaited_on_every_runtime() {
    let on_tokio = |runtime: Runtime, executor: Executor<Conn>| {
        // As a task, so that it has to be `Send`.
        runtime.block_on(runtime.spawn(work(executor))).unwrap().unwrap();
    };
    for number in 0..3 {
        let database = Database::new();
        let executor = Executor::builder(database.registry())
            .async_writers(true)
            .async_writer_lease(Duration::from_secs(60))
            .build()
            .unwrap();
        match number {
            0 => block_on(work(executor.clone())).unwrap(),
            1 => on_tokio(current_thread(), executor.clone()),
            _ => on_tokio(multi_thread(), executor.clone()),
        }
        assert_eq!(stored(executor.registry()).len(), 23);
        executor.shutdown(Duration::from_secs(60)).unwrap();
    }
}

/// A job that runs until it is let go.
fn held(executor: &Executor<Conn>) -> (JobHandle<usize>, mpsc::Sender<()>) {
    let (begun, begins) = mpsc::channel();
    let (go, gone) = mpsc::channel();
    let handle = executor.run(move |session| -> Result<usize> {
        begun.send(()).unwrap();
        let _ = gone.recv();
        insert(session, "held")
    });
    begins.recv().unwrap();
    (handle, go)
}

#[test]
fn a_handle_that_lost_a_select_is_awaited_later_on_another_runtime() {
    let database = Database::new();
    let executor = Executor::new(database.registry()).unwrap();
    let (mut handle, go) = held(&executor);
    let first = current_thread();
    let late = first.block_on(async { tokio::time::timeout(Duration::from_millis(20), &mut handle).await });
    assert!(late.is_err(), "the job still runs");
    drop(first);
    let second = multi_thread();
    let answer = second.spawn(handle);
    drop(go);
    assert_eq!(second.block_on(answer).unwrap().unwrap(), 1);
    assert_eq!(stored(executor.registry()), ["held"]);
}

#[test]
fn many_tasks_join_on_many_jobs() {
    let database = Database::new();
    let executor = Executor::new(database.registry()).unwrap();
    let runtime = multi_thread();
    let tasks: Vec<_> = (0..100)
        .map(|n| {
            let executor = executor.clone();
            runtime.spawn(async move { executor.run(move |session| insert(session, &format!("{n:03}"))).await })
        })
        .collect();
    runtime.block_on(async {
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap(), 1);
        }
    });
    assert_eq!(stored(executor.registry()).len(), 100);
}

#[test]
fn a_runtime_dropped_while_jobs_run_leaves_them_to_their_end() {
    let database = Database::new();
    let executor = Executor::builder(database.registry())
        .async_writers(true)
        .async_sessions(1)
        .async_lease(Duration::from_secs(60))
        .async_writer_lease(Duration::from_secs(60))
        .build()
        .unwrap();
    let runtime = multi_thread();
    let (handle, go) = held(&executor);
    drop(runtime.spawn(handle));
    let (open, opens) = mpsc::channel();
    let asking = executor.clone();
    drop(runtime.spawn(async move {
        let session = asking.session().await.unwrap();
        open.send(()).unwrap();
        std::future::pending::<()>().await;
        drop(session);
    }));
    opens.recv().unwrap();
    drop(runtime);
    drop(go);
    executor.shutdown(Duration::from_secs(60)).unwrap();
    assert_eq!(executor.inspect().running(), 0);
    assert_eq!(stored(executor.registry()), ["held"]);
}
