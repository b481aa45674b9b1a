//! Threads that stand back for others.
#![cfg_attr(target_os = "linux", expect(unsafe_code, reason = "a call of the C library that takes plain numbers"))]

/// Lets every other thread of the machine go before this one, and before those that it starts from now on: it
/// runs where a processor would be idle, and little besides. There may be no way back for this thread. Only on
/// Linux; elsewhere it does nothing.
///
/// Niceness alone does not do: a nice thread that runs is left running for its time slice of milliseconds while
/// a request waits.
pub fn set_idle_priority() {
    #[cfg(target_os = "linux")]
    {
        const SCHED_IDLE: i32 = 5;
        #[repr(C)]
        struct Parameters {
            priority: i32,
        }
        unsafe extern "C" {
            fn sched_setscheduler(thread: i32, policy: i32, parameters: *const Parameters) -> i32;
        }
        // SAFETY: the function of this name and type that Linux' C libraries have; thread 0 is the calling one,
        // and the parameters outlive the call. Refused, the thread stays as it is.
        unsafe {
            sched_setscheduler(0, SCHED_IDLE, &Parameters { priority: 0 });
        }
    }
}
