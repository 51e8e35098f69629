package isolation
