// Package supervisor knows a dyno's life and nothing else: one transition
// table, and a pure Step that looks a dyno's next state and the effects of
// going there up in it.
//
// It must never read a clock, draw a random number, start a goroutine or
// touch a file: time and randomness arrive in events, and what is to be done
// leaves as data. Thus weeks of a dyno's life are tested in milliseconds, and
// an agent that died between two effects does them again.
//
// # Who moves a dyno
//
// Every arrow between two states has one owner, the component whose event
// moves the dyno along it:
//
//	reconciler   compares what is desired with what there is: Want, Stop
//	driver       carries effects out and says how they went: Launched,
//	             LaunchFailed, Listening, Sampled, Unhealthy, ClientLost,
//	             Collected
//	pid1         the dyno's own PID 1, by its exit record: Ended (where it
//	             left none, the driver speaks for it)
//	clock        the one timer a dyno has: Due
//
// # Tries and runs
//
// A dyno is never restarted in place. Each try is a new run with a new id,
// which comes with the event that begins it; events of an older run change
// nothing.
package supervisor
