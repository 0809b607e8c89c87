package simulate

import "iter"

// routine is what waits for the exchange or the disk: a coroutine that gives way until the world resumes it. One runs at
// a time, and only when the world says so, so nothing depends on a scheduler.
type routine struct {
	next  func() (struct{}, bool)
	end   func()
	yield func(struct{}) bool
	job   func()
	life  *process // of which it is a part
	place int      // in life.routines
	turn  uint64   // counts its waits: a wake-up meant for an earlier one is void
	dead  bool
}

// crew are the routines of one worker. They are used again, also by its next seeds.
type crew struct{ idle, all []*routine }

func (c *crew) take(job func()) *routine {
	if n := len(c.idle); n > 0 {
		r := c.idle[n-1]
		c.idle = c.idle[:n-1]
		r.job = job
		return r
	}
	r := &routine{job: job}
	r.next, r.end = iter.Pull(func(yield func(struct{}) bool) {
		r.yield = yield
		for {
			r.job()
			r.leave()
			c.idle = append(c.idle, r)
			if !yield(struct{}{}) {
				return
			}
		}
	})
	c.all = append(c.all, r)
	return r
}

// close ends every routine, all of which are idle.
func (c *crew) close() {
	for _, r := range c.all {
		r.end()
	}
}

// leave takes a routine that has finished out of its process.
func (r *routine) leave() {
	all := r.life.routines
	last := all[len(all)-1]
	all[r.place], last.place = last, r.place
	r.life.routines = all[:len(all)-1]
	r.turn++
	r.job, r.life, r.dead = nil, nil, false
}

// spawn begins a routine of a process, in a turn of its own.
func (p *process) spawn(job func()) {
	if !p.alive {
		return
	}
	r := p.w.crew.take(job)
	r.life, r.place = p, len(p.routines)
	p.routines = append(p.routines, r)
	turn := r.turn
	p.w.after(0, func() { p.w.resume(r, turn) })
}

// resume lets a routine run until it waits again, unless it is not waiting for this any more.
func (w *world) resume(r *routine, turn uint64) {
	if r.turn != turn {
		return
	}
	p := r.life
	w.run(r)
	if p.alive {
		p.turn(nil)
	}
}

func (w *world) run(r *routine) {
	was := w.running
	w.running = r
	r.next()
	w.running = was
}

// park has the running routine give way until what wakes it calls resume with the turn that arm was given. It tells whether its
// process still lives.
func (w *world) park(arm func(r *routine, turn uint64)) bool {
	r := w.running
	if r.dead {
		return false
	}
	r.turn++
	arm(r, r.turn)
	r.yield(struct{}{})
	return !r.dead
}

// sleep has the running routine give way for a while.
func (w *world) sleep(ns int64) bool {
	return w.park(func(r *routine, turn uint64) { w.after(ns, func() { w.resume(r, turn) }) })
}

// bury ends the routines of a process that has crashed: whatever they wait for fails.
func (p *process) bury() {
	for len(p.routines) > 0 {
		r := p.routines[len(p.routines)-1]
		r.dead = true
		p.w.run(r)
	}
}
