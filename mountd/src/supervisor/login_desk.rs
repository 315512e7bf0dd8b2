//! Answers workers that need the login of a source: a worker may be another user and may open next to no file.
//!
//! Invariant: a worker gets the logins of the configured sources, each for its own registry, and nothing else.
//! One question about a source is answered at a time, and few wait, so that a worker that went wrong cannot
//! start programs without end. Concurrency: owned by the supervisor's task; answers come from tasks.

use std::sync::Arc;

use modelfs::registry::Logins;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Mutex, Semaphore};

use super::events::Generation;
use super::messages::ToWorker;
use crate::error::Failure;
use crate::logins;
use crate::sources::SourcePlan;

/// Questions that wait at once: a few for each connection that a worker has.
const MAX_WAITING: usize = 64;

/// Answers questions for logins.
pub struct LoginDesk {
    /// One at a time for each source.
    sources: Vec<Arc<Mutex<Arc<dyn Logins>>>>,
    waiting: Arc<Semaphore>,
    answer: UnboundedSender<(Generation, ToWorker)>,
    answers: UnboundedReceiver<(Generation, ToWorker)>,
}

impl LoginDesk {
    /// For these sources, in this order.
    pub fn new(plans: &[SourcePlan]) -> Result<Self, Failure> {
        let all = plans.iter().map(|plan| Ok(Arc::new(Mutex::new(logins::of_source(plan)?))));
        let (answer, answers) = unbounded_channel();
        Ok(Self {
            sources: all.collect::<Result<_, Failure>>()?,
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            answer,
            answers,
        })
    }

    /// Looks a login up; the answer is told by [`LoginDesk::answered`]. Must be called within the tokio
    /// runtime.
    pub fn ask(&self, worker: Generation, ask: u64, source: u16, repository: String) {
        let answer = self.answer.clone();
        let source = self.sources.get(usize::from(source)).cloned();
        let place = Arc::clone(&self.waiting).try_acquire_owned();
        tokio::spawn(async move {
            let login = match (source, place) {
                (Some(source), Ok(_place)) => source.lock().await.login(&repository).await,
                (None, _) => Err("there is no such source".to_owned()),
                (_, Err(_)) => Err("too many requests wait for a login".to_owned()),
            };
            let login = login.map(|found| found.map(Into::into));
            let _ = answer.send((worker, ToWorker::Login { ask, login }));
        });
    }

    /// The next answer, and the worker that it is for. Cancel safe.
    pub async fn answered(&mut self) -> (Generation, ToWorker) {
        match self.answers.recv().await {
            Some(answer) => answer,
            // This value has a sender itself.
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::messages::Login;

    fn plans() -> Vec<SourcePlan> {
        let text = "[[source]]\nname = \"a\"\nurl = \"https://h\"\n\
                    token_command = [\"echo\", \"s3cret\"]";
        let level = modelfs::config::Level::User;
        let layer = modelfs::config::parse(text, std::path::Path::new("/f"), level).unwrap();
        let config = modelfs::config::Config::resolve([layer]).unwrap();
        crate::sources::plans(&config).unwrap()
    }

    #[tokio::test]
    async fn a_worker_gets_the_logins_of_configured_sources_and_no_others() {
        let mut desk = LoginDesk::new(&plans()).unwrap();
        desk.ask(Generation(7), 1, 0, "a/b".into());
        let (worker, answer) = desk.answered().await;
        let ToWorker::Login { ask: 1, login: Ok(Some(Login::Bearer(token))) } = &answer else {
            panic!("{answer:?}");
        };
        assert_eq!((worker, token.as_str()), (Generation(7), "s3cret"));
        assert!(!format!("{answer:?}").contains("s3cret"));
        desk.ask(Generation(7), 2, 1, String::new());
        let (_, answer) = desk.answered().await;
        assert!(matches!(answer, ToWorker::Login { ask: 2, login: Err(_) }), "{answer:?}");
    }

    #[tokio::test]
    async fn only_so_many_questions_wait() {
        let mut desk = LoginDesk::new(&plans()).unwrap();
        let held = Arc::clone(&desk.sources[0]);
        let held = held.lock().await;
        for ask in 0..=MAX_WAITING as u64 {
            desk.ask(Generation(0), ask, 0, String::new());
        }
        let (_, answer) = desk.answered().await;
        let last = MAX_WAITING as u64;
        assert!(
            matches!(&answer, ToWorker::Login { ask, login: Err(_) } if *ask == last),
            "{answer:?}"
        );
        drop(held);
        assert!(matches!(desk.answered().await.1, ToWorker::Login { login: Ok(_), .. }));
    }
}
