// Package guest holds the tests that need an init: our programs as units of a
// real systemd. They take the machine as theirs (units in /etc, state in
// /var/lib/manifold), so they are built with the tag guest only and run where
// test/vm starts them.
package guest
