"""Models as torch modules, and their training: the extra `train`. Import the parts only where torch is at hand."""
