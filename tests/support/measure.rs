//! What a program costs.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// What a run cost.
pub struct Cost {
    pub time: Duration,
    /// Processor time, to a hundredth of a second.
    pub processor: Duration,
    /// Peak of the resident memory in bytes.
    pub memory: u64,
}

/// Runs a program that succeeds.
pub fn cost_of(command: &mut Command) -> Cost {
    limited_cost_of(command, 1.0)
}

/// The same, but the program is stopped while it has used more than this share of a processor.
pub fn limited_cost_of(command: &mut Command, share: f64) -> Cost {
    let begin = Instant::now();
    let mut child = command.spawn().unwrap();
    let directory = format!("/proc/{}", child.id());
    let (mut processor, mut memory) = (Duration::ZERO, 0);
    loop {
        processor = processor.max(processor_of(&directory).unwrap_or_default());
        memory = memory.max(peak_of(&directory).unwrap_or_default());
        if let Some(exit) = child.try_wait().unwrap() {
            assert!(exit.success(), "{exit}");
            return Cost { time: begin.elapsed(), processor, memory };
        }
        if share < 1.0 {
            let has_used_up = processor > begin.elapsed().mul_f64(share);
            let signal = if has_used_up { Signal::STOP } else { Signal::CONT };
            kill_process(Pid::from_child(&child), signal).unwrap();
        }
        sleep(Duration::from_millis(2));
    }
}

/// Fields 14 and 15, in ticks of 10 ms.
fn processor_of(directory: &str) -> Option<Duration> {
    let text = fs::read_to_string(format!("{directory}/stat")).ok()?;
    let fields = text.rsplit_once(')')?.1.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.map(|field| field.parse::<u64>().unwrap_or(0)).sum();
    Some(Duration::from_millis(ticks * 10))
}

fn peak_of(directory: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("{directory}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1_024)
}
