package isolation_test

import (
	"testing"
	"time"
)

const ticker = `trap 'echo bye; exit 3' TERM; i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.02; done`

// TestFreezeStopsAndThawGoesOn: nothing is written while it is frozen, also
// when another Host looks at it, and everything goes on after the thaw.
func TestFreezeStopsAndThawGoesOn(t *testing.T) {
	r := newRig(t)
	b := r.start(ticker)
	r.said(b, "tick 3\n")
	for range 2 { // twice is once
		if err := b.Freeze(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	r.host.Close()
	r.open()
	boxes, err := r.host.Boxes()
	if err != nil || len(boxes) != 1 {
		t.Fatal(boxes, err)
	}
	b = boxes[0]
	if frozen, err := b.Frozen(); !frozen || err != nil {
		t.Errorf("another host sees frozen %v, %v", frozen, err)
	}
	// What it wrote before may still be on its way through PID 1.
	last, same := r.output(b), 0
	for deadline := time.Now().Add(patience); same < 10; time.Sleep(20 * time.Millisecond) {
		out := r.output(b)
		if same++; out != last {
			last, same = out, 0
		}
		if time.Now().After(deadline) {
			t.Fatal("a frozen dyno goes on writing")
		}
	}
	for range 2 {
		if err := b.Thaw(); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(patience); r.output(b) == last; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a thawed dyno does not go on")
		}
	}
	if frozen, err := b.Frozen(); frozen || err != nil {
		t.Errorf("after the thaw: frozen %v, %v", frozen, err)
	}
}

// TestFrozenDynoCanBeStoppedAndKilled: a stop lets it end in its own way, a
// kill needs no thaw.
func TestFrozenDynoCanBeStoppedAndKilled(t *testing.T) {
	r := newRig(t)
	b := r.start(ticker)
	r.said(b, "tick 1\n")
	if err := b.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	if exit := r.wait(b); exit.Status != 3 || exit.Forced {
		t.Errorf("stopped while frozen it ended with %+v", exit)
	}
	r.said(b, "bye\n")

	b = r.start(ticker)
	r.said(b, "tick 1\n")
	if err := b.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Kill(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-b.Done():
	case <-time.After(patience):
		t.Error("a frozen dyno is not killed")
	}
	if err := b.Freeze(t.Context()); err == nil {
		t.Error("a dyno that has ended was frozen")
	}
	if err := b.Thaw(); err != nil {
		t.Error(err)
	}
}
