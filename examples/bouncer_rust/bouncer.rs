//! A ball over a fan, in Rust through pe_env.h: it falls, bounces, and is to float one metre above the floor.
//!
//!     rustc --edition 2021 --crate-type cdylib -O bouncer.rs -o libbouncer.so
//!
//! One state is (height in m, speed in m/s), which is also what is seen; the action is the fan's acceleration in m/s². No crates.

use std::slice::{from_raw_parts, from_raw_parts_mut};

const PERIOD_S: f64 = 0.02;
const GRAVITY: f64 = 9.81;
const BOUNCE: f64 = 0.8; // share of the speed that is left after the floor
const GOAL_M: f64 = 1.0;
const CEILING_M: f64 = 3.0;

type ResetMany = unsafe extern "C" fn(i64, i64, *const u32, *const u64, *const u8, *const f64, *mut f64, *mut f64);
type StepMany = unsafe extern "C" fn(i64, i64, *const u32, *const u64, *const f64, *const f64, *mut f64, *mut f64, *mut f64, *mut f64, *mut u8, *mut u8);
type AllowMany = unsafe extern "C" fn(i64, *const f64, *mut u8);

/// `struct pe_env` of pe_env.h, field by field.
#[repr(C)]
pub struct PeEnv {
    version: u32,
    size: u32,
    agents: u32,
    n_state: u32,
    n_observation: u32,
    n_action: u32,
    n_parameters: u32,
    max_steps: u32,
    reset_many: ResetMany,
    step_many: StepMany,
    allow_many: Option<AllowMany>,
    n_choices: u32,
    unused: u32,
}

/// What a loader asks for by name.
#[no_mangle]
#[allow(non_upper_case_globals)]
pub static pe_environment: PeEnv = PeEnv {
    version: 2,
    size: std::mem::size_of::<PeEnv>() as u32,
    agents: 1,
    n_state: 2,
    n_observation: 2,
    n_action: 1,
    n_parameters: 0,
    max_steps: 250,
    reset_many,
    step_many,
    allow_many: None,
    n_choices: 0,
    unused: 0,
};

/// A number in [0, 1) from Philox4x32-10, as pe_env.h asks: key (seed, stream), counter (draw, environment, step).
fn uniform(draw: u32, environment: u32, step: u64, key: &[u32]) -> f64 {
    let (mut c, mut k) = ([draw, environment, step as u32, (step >> 32) as u32], [key[0], key[1]]);
    for _ in 0..10 {
        let (a, b) = (0xD2511F53u64 * u64::from(c[0]), 0xCD9E8D57u64 * u64::from(c[2]));
        c = [(b >> 32) as u32 ^ c[1] ^ k[0], b as u32, (a >> 32) as u32 ^ c[3] ^ k[1], a as u32];
        k = [k[0].wrapping_add(0x9E3779B9), k[1].wrapping_add(0xBB67AE85)];
    }
    (f64::from(c[0] >> 5) * 67108864.0 + f64::from(c[1] >> 6)) / 9007199254740992.0
}

unsafe extern "C" fn reset_many(n: i64, first: i64, key: *const u32, step: *const u64, mask: *const u8, _parameters: *const f64, state: *mut f64, observation: *mut f64) {
    let rows = n as usize;
    let (key, step, mask) = (from_raw_parts(key, 2), from_raw_parts(step, rows), from_raw_parts(mask, rows));
    let (state, observation) = (from_raw_parts_mut(state, 2 * rows), from_raw_parts_mut(observation, 2 * rows));
    for i in (0..rows).filter(|&i| mask[i] != 0) {
        let draw = |k: u32| uniform(0x8000_0000 + k, (first + i as i64) as u32, step[i], key);
        state[2 * i] = 0.5 + draw(0);
        state[2 * i + 1] = 2.0 * draw(1) - 1.0;
        observation[2 * i..2 * i + 2].copy_from_slice(&state[2 * i..2 * i + 2]);
    }
}

unsafe extern "C" fn step_many(
    n: i64, _first: i64, _key: *const u32, _step: *const u64, _parameters: *const f64, action: *const f64, state: *mut f64, observation: *mut f64,
    reward: *mut f64, cost: *mut f64, terminated: *mut u8, alive: *mut u8,
) {
    for i in 0..n as usize {
        let (s, seen) = (from_raw_parts_mut(state.add(2 * i), 2), from_raw_parts_mut(observation.add(2 * i), 2));
        s[1] += PERIOD_S * (*action.add(i) - GRAVITY);
        s[0] += PERIOD_S * s[1];
        let touched = s[0] < 0.0;
        if touched {
            s[0] = -s[0];
            s[1] = -BOUNCE * s[1];
        }
        seen.copy_from_slice(s);
        *reward.add(i) = 1.0 - (s[0] - GOAL_M).abs();
        *cost.add(i) = f64::from(u8::from(touched));
        *terminated.add(i) = u8::from(s[0] > CEILING_M);
        *alive.add(i) = 1;
    }
}
