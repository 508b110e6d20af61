/*
 * A history that went back under the same epoch and has grown again: the gateway applied two changes that were lost, its
 * entry has asOf 2, and the new history revokes as its first change. From its second on it is no shorter than what is known,
 * and only the chain tells it from the old one. A reset of the same epoch may still be under way (asked for under an older
 * epoch): after a contradiction it opens nothing. One that arrives before it is what the guarantee excludes.
 */
byte db = 2;
bool isNew = false;         /* the history in the database */
bool committed = false, late = false, fresh = true, pre = true;
byte applied = 2;
bool appliedIsNew = false;
bool closed = false;

#ifdef REACH
#define accept() assert(false)
#else
#define accept() assert(!late)
#endif

inline raise(before) { if :: before && late :: else -> if :: fresh && !pre :: else -> fresh = true; pre = before fi fi }

active proctype Identity() {
  atomic { db = 0; isNew = true };
  atomic { db = 1; committed = true };
  db = 2;
  db = 3
}

active proctype Clock() {
end:
  atomic {
    committed && !(fresh && pre) -> late = true
#ifdef REACH_LATE
    ; assert(false)
#endif
  }
}

active proctype Watermarks() {
  byte S, count = 0; bool before, isOfNew;
end:
  do
  :: count < 3 ->
     count++;
     before = !committed;
     atomic { S = db; isOfNew = isNew };
     atomic {
       if
       :: S < applied /* gone back */
       :: S >= applied && closed
       :: S >= applied && !closed && isOfNew == appliedIsNew -> applied = S; raise(before)
       :: S >= applied && !closed && isOfNew != appliedIsNew ->
#ifdef NO_CHAIN_OF_ANSWERS
          applied = S; appliedIsNew = isOfNew; raise(before) /* the changes after `applied`, which are not the lost ones */
#else
          closed = true
#endif
       fi;
       S = 0; before = false; isOfNew = false
     }
  od
}

active proctype LateReset() {
  byte S; bool before;
  before = !committed;
  S = db;
end:
  atomic {
    closed && isNew && S >= applied ->
#ifdef CONTRADICTION_IS_FORGOTTEN
    closed = false; applied = S; appliedIsNew = true; raise(before) /* its tombstones are older than the entry */
#else
    skip
#endif
  }
}

active proctype Gateway() {
end:
  do
  :: fresh -> fresh = false
  :: atomic { fresh && !closed -> accept() } /* the entry read at 2, in the lost history */
  od
}
