/*
 * L2 in the hands of somebody who can move its values, but not read or make them. Slot and value k stand for one
 * credential (k / 2) and one audience (k % 2). The key a value is sealed with comes from the credential, so that only
 * another audience's value of the same credential can open in the wrong place; what is bound to the cache key cannot.
 */
#define none 4
byte slot[4] = none;
bool isMoved = false;

#ifdef REACH
#define accept(v, k) assert(false)
#else
#define accept(v, k) assert(v == k)
#endif
#ifdef NOT_BOUND_TO_KEY
#define opens(v, k) (v != none && v / 2 == k / 2)
#elif defined(NOT_SEALED_BY_CREDENTIAL)
#define opens(v, k) (v != none && v % 2 == k % 2)
#else
#define opens(v, k) (v == k)
#endif

active proctype Attacker() {
  byte from, to, count = 0;
end:
  do
  :: count < 3 ->
     count++;
     atomic {
       select(from : 0 .. 3);
       select(to : 0 .. 3);
       slot[to] = slot[from];
       isMoved = (from != to && slot[to] != none);
#ifdef REACH_LATE
       assert(!isMoved);
#endif
       from = 0; to = 0
     }
  od
}

active [2] proctype Gateway() {
  byte k, count = 0;
end:
  do
  :: count < 3 ->
     count++;
     atomic {
       select(k : 0 .. 3);
       if
       :: opens(slot[k], k) -> accept(slot[k], k)
       :: else -> slot[k] = k /* a miss: an exchange fills it */
       fi;
       k = 0
     }
  od
}
